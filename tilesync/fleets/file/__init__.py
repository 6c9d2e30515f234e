"""The file of a fleet: read, checked, and turned into settings.

entry_checks   checks of whole `[[mirror]]` entries
entry_reader   reads `[defaults]` and `[[mirror]]`
first_file     first file, with comments, for what an identity can see
mistakes       mistakes, each with its place, and the error that has all of them
option_table   options of `mirror` that the file may set
reader         read a TOML file into settings
secrets        secrets read from where the file refers to
settings       settings of a fleet and its mirrors: values
table_reader   reads one table, key by key
value_readers  readers of values: texts, numbers, paths, references
"""
