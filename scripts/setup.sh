# Sourced by scripts/demo, scripts/test and .ci/run: makes `.venv` from uv.lock, from nothing.
# Usage: setup EXTRA...   (extras of pyproject.toml)

python_312() {
  local candidate
  for candidate in "${PYTHON:-}" python3.12 python3 python; do
    if [ -n "$candidate" ] && "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 12))' 2>/dev/null; then
      command -v "$candidate"
      return 0
    fi
  done
  return 1
}

setup() {
  local python extras=() extra
  for extra in "$@"; do extras+=(--extra "$extra"); done
  if ! .venv/bin/python -c 'import sys; sys.exit(sys.version_info[:2] != (3, 12))' 2>/dev/null; then
    if python=$(python_312); then
      "$python" -m venv --clear .venv
    elif command -v uv >/dev/null; then
      uv venv --quiet --clear --python 3.12 .venv
    else
      echo "musax needs Python 3.12. Install it (or uv), or set PYTHON to its path, and try again." >&2
      return 1
    fi
  fi
  local uv=.venv/bin/uv
  if command -v uv >/dev/null; then
    uv=uv
  elif ! [ -x "$uv" ]; then
    .venv/bin/python -m pip --version >/dev/null 2>&1 || .venv/bin/python -m ensurepip >/dev/null
    .venv/bin/python -m pip install --quiet --disable-pip-version-check 'uv>=0.8,<1'
  fi
  # The system's certificates, as pip has them; the variable's name depends on uv's version.
  export UV_SYSTEM_CERTS="${UV_SYSTEM_CERTS:-1}" UV_NATIVE_TLS="${UV_NATIVE_TLS:-1}"
  # --inexact keeps uv itself, which the lock file does not know.
  VIRTUAL_ENV="$PWD/.venv" "$uv" sync --quiet --frozen --inexact "${extras[@]}"
}
