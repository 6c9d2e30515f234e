// Loaded before a program that needs the module better-sqlite3, whose native code may not be installable: gives it the
// same methods over SQLite as WebAssembly. What the program does with them is its own: SQL, checks, keys.
const Module = require("node:module");

const load = Module._load;
Module._load = (request, parent, ...rest) =>
  request === "better-sqlite3" ? makeDatabaseClass(parent.require("node-sqlite3-wasm")) : load(request, parent, ...rest);

// better-sqlite3 returns BLOBs as Buffers.
const toRow = (row) =>
  Object.fromEntries(
    Object.entries(row).map(([key, value]) => [key, value instanceof Uint8Array ? Buffer.from(value) : value]),
  );

class Statement {
  constructor(database, sql) {
    this.database = database;
    this.sql = sql;
  }

  get(...values) {
    const row = this.database.get(this.sql, values);
    return row ? toRow(row) : undefined;
  }

  *iterate(...values) {
    const statement = this.database.prepare(this.sql);
    for (const row of statement.iterate(values)) {
      yield toRow(row);
    }
    statement.finalize();
  }

  run(...values) {
    return this.database.run(this.sql, values);
  }

  // Columns of the only table that it reads.
  columns() {
    return this.database.all(`PRAGMA table_info(${/ FROM (\w+)/.exec(this.sql)[1]})`);
  }
}

const makeDatabaseClass = (sqlite) =>
  class {
    constructor(path) {
      this.database = new sqlite.Database(path);
    }

    prepare(sql) {
      return new Statement(this.database, sql);
    }

    close() {
      this.database.close();
    }
  };
