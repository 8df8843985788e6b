# Sourced by the other tools: finds a Python, keeps the environment, installs the checkout.
# Afterwards $ROOT is the checkout and $BIN the environment's programs.
# AFD_VENV: where the environment is kept (default: .venv in the checkout).
# AFD_PYTHON: the Python to make it with (default: the first suitable one found).

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VENV=${AFD_VENV:-$ROOT/.venv}
case $VENV in /*) ;; *) VENV=$PWD/$VENV ;; esac
BIN=$VENV/bin

# Settings of the caller that would reach into the environment.
unset PYTHONHOME PYTHONPATH VIRTUAL_ENV
# Packages are installed uncompiled: where nothing may be kept, every start would compile
# again what it imports, which takes as long as all else of it.
unset PYTHONDONTWRITEBYTECODE
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_USER=0 PIP_REQUIRE_VIRTUALENV=0

say() { printf '%s\n' "$*"; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

# TensorFlow 2.21 has packages for Python 3.11 to 3.13 among those we support.
_suitable() {
  "$1" -c 'import sys; raise SystemExit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
    >/dev/null 2>&1
}

find_python() {
  local candidate
  if [ -n "${AFD_PYTHON:-}" ]; then
    _suitable "$AFD_PYTHON" ||
      fail "AFD_PYTHON=$AFD_PYTHON is not a Python from 3.11 to 3.13."
    say "$AFD_PYTHON"
    return
  fi
  for candidate in python3 python3.13 python3.12 python3.11 python; do
    if command -v "$candidate" >/dev/null 2>&1 && _suitable "$candidate"; then
      command -v "$candidate"
      return
    fi
  done
  fail "no Python from 3.11 to 3.13 found on PATH. Install one, or name it in AFD_PYTHON."
}

# What the installation depends on; a change of any of it installs again.
_fingerprint() {
  "$BIN/python" - "$ROOT" "$1" <<'PYTHON'
import hashlib
import pathlib
import sys

root, extras = sys.argv[1:]
digest = hashlib.sha256(f"{sys.version} {root} {extras}".encode())
for name in ("setup.py", "pyproject.toml", "afd_tf/_version.py"):
    digest.update(pathlib.Path(root, name).read_bytes())
print(digest.hexdigest())
PYTHON
}

_make_venv() {
  if "$BIN/python" -m pip --version >/dev/null 2>&1 && _suitable "$BIN/python"; then
    return
  fi
  if [ -d "$VENV" ] && [ -n "$(ls -A "$VENV")" ] && [ ! -f "$VENV/pyvenv.cfg" ]; then
    fail "$VENV exists and is not a Python environment. Move it, or set AFD_VENV."
  fi
  local python output
  python=$(find_python)
  say "Creating $VENV with $("$python" --version 2>&1)"
  rm -rf "$VENV"
  if ! output=$("$python" -m venv "$VENV" 2>&1); then
    printf '%s\n' "$output" >&2
    rm -rf "$VENV"
    fail "$python could not create an environment. Some systems pack venv and" \
      "ensurepip apart from Python (on Debian and Ubuntu: apt install python3-venv)."
  fi
}

# pip's output reduced to what tells a waiting person that it works.
_progress() {
  local line
  while IFS= read -r line; do
    case $line in
      *Downloading*" MB)"* | *"Using cached"*" MB)"*) say "  ${line#"${line%%[![:space:]]*}"}" ;;
      "Installing collected packages:"*)
        line=${line#*: }
        say "  Installing $(($(printf '%s' "$line" | tr -cd , | wc -c) + 1)) package(s)" ;;
    esac
  done
}

_install() {
  local extras=$1 stamp=$VENV/.afd-${1:-run} log=$VENV/install.log wanted
  _make_venv
  wanted=$(_fingerprint "$extras")
  if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
    return
  fi
  say "Installing afd_tf${extras:+ with its $extras tools} into $VENV (a few minutes the first time)"
  # Compiling every file of TensorFlow takes longer than compiling the imported ones.
  if ! "$BIN/python" -m pip install --no-compile --progress-bar off \
    --editable "$ROOT${extras:+[$extras]}" 2>&1 | tee "$log" | _progress; then
    tail -n 20 "$log" >&2
    fail "installation failed; all of pip's output is in $log"
  fi
  printf '%s\n' "$wanted" >"$stamp"
}

# prepare_environment [extras]: one at a time, and only when something changed.
prepare_environment() {
  local extras=${1:-}
  mkdir -p "$(dirname "$VENV")"
  if command -v flock >/dev/null 2>&1; then
    exec 9>"$VENV.lock"
    flock -n 9 || { say "Waiting for another installation into $VENV"; flock 9; }
    _install "$extras"
    exec 9>&-
  else
    _install "$extras"
  fi
}
