#!/bin/sh
# Installs into the folder $1 what tests/test_viewers.py needs: the packages of package.json, and a program `browser`
# that starts Chromium: the one named by the variable CHROMIUM, one of the system, or the one that npm has for Linux.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
cd "$1"

write_browser() { # of the command that starts it
  printf '#!/bin/sh\nexec env %s "$@"\n' "$1" >browser
  chmod +x browser
}

system_browser() {
  for name in ${CHROMIUM:-chromium chromium-browser google-chrome google-chrome-stable}; do
    if program=$(command -v "$name") && "$program" --version >/dev/null 2>&1; then
      write_browser "'$program'"
      return 0
    fi
  done
  return 1
}

unpack() { # a Brotli file to a file
  node -e 'process.stdin.pipe(require("zlib").createBrotliDecompress()).pipe(process.stdout)' <"$1" >"$2"
}

# The package unpacks itself only for the cloud that it is made for. It brings libraries (NSS, expat) too, which need a
# younger C library than Chromium itself does: they are used where the system has none.
npm_browser() {
  packed=node_modules/@sparticuz/chromium/bin
  mkdir chromium
  unpack "$packed/chromium.br" chromium/chromium
  chmod +x chromium/chromium
  for name in swiftshader al2023; do
    unpack "$packed/$name.tar.br" "$name.tar"
    tar -xf "$name.tar" -C chromium
    rm "$name.tar"
  done
  rm -rf node_modules/@sparticuz
  beside='"$(dirname "$0")"/chromium'
  write_browser "$beside/chromium"
  ./browser --version >/dev/null 2>&1 || write_browser "LD_LIBRARY_PATH=$beside/lib $beside/chromium"
  ./browser --version >/dev/null
}

dev=--include=dev # said, because NODE_ENV may say otherwise
if system_browser; then
  dev=--omit=dev
elif test "$(uname -sm)" != 'Linux x86_64'; then
  echo 'there is no Chromium here; name one in CHROMIUM' >&2
  exit 1
fi
cp "$here/package.json" wanted.json
cp wanted.json package.json
npm install $dev --ignore-scripts --no-package-lock --no-audit --no-fund --loglevel=error --fetch-retries=1 >&2
test -e browser || npm_browser
mv wanted.json installed.json # the stamp, last
