# What suites are made of: steps that pass or fail as a whole, cargo tests that are counted one by one, and
# Debian packages that are installed when they are missing.
# shellcheck shell=bash
# The settings come from tests/run:
# shellcheck disable=SC2154

passed=0 failed=0 skipped=0
child=          # the process being waited for
lacking=        # why `need` said no

# step SECONDS NAME COMMAND...: one thing that passes or fails as a whole.
step() {
    local limit=$1 name=$2 started=$SECONDS
    shift 2
    printf '== %s\n' "$name"
    if logged "$limit" "$name" "$@"; then
        verdict "$name" "$started" 1 0 0
    else
        show_failure "$name"
        verdict "$name" "$started" 0 1 0
        return 1
    fi
}

# cargo_tests SECONDS NAME ARGUMENTS...: `cargo test ARGUMENTS`, every test counted. SECONDS is for the tests; the
# build has its own limit.
cargo_tests() {
    local limit=$1 name=$2 started=$SECONDS status counts
    shift 2
    printf '== %s\n' "$name"
    if ! logged 2400 "$name" cargo test "${locked[@]}" --no-run "$@"; then
        show_failure "$name"
        verdict "$name" "$started" 0 1 0
        return 1
    fi
    logged "$limit" "$name" cargo test "${locked[@]}" --no-fail-fast "$@"
    status=$?
    read -ra counts < <(count_tests "$status" <"$out/$name.log")
    sed -nE 's/^(.*\.\.\. )?(SKIPPED .*)/  \2/p; /ignored, runs (as a child|in the suite)/!s/^test (.*) \.\.\. ignored/  SKIPPED \1/p' \
        "$out/$name.log"
    ((counts[1] == 0)) || show_failure "$name"
    verdict "$name" "$started" "${counts[@]}"
}

# Reads the log of a `cargo test` that ended with status $1, prints "passed failed skipped". A binary that died
# without a result, a time limit, and a run in which nothing ran at all are failures too. A test that cannot run
# on this machine says so on stderr: `SKIPPED name: reason`. An ignored one counts as skipped, unless its reason is
# that it "runs as a child of another test", which then has run it, or "runs in the suite NAME".
count_tests() {
    awk -v status="$1" '
        /^test result: / { results++; passed += $4; failed += $6; skipped += $8; if ($3 ~ /FAILED/) red++ }
        /^test .* \.\.\. ignored, runs (as a child|in the suite)/ { skipped-- }
        /(^|\.\.\. )SKIPPED / { passed--; skipped++ }
        /^error: [0-9]+ targets? failed/ { broken = $2 }
        END {
            if (broken > red) failed += broken - red
            else if (status != 0 && !failed) failed++
            if (!results && !failed) failed++
            print passed + 0, failed + 0, skipped + 0
        }'
}

# skip NAME REASON: something that could not be tried here.
skip() {
    printf '== %s\n  SKIPPED %s: %s\n' "$1" "$1" "$2"
    verdict "$1" "$SECONDS" 0 0 1
}

# need PACKAGE:COMMAND...: are the commands (or files) there? Installs the Debian packages of those that are not, if it
# may.
need() {
    local pair missing=() root=()
    for pair; do
        is_there "${pair#*:}" || missing+=("${pair%%:*}")
    done
    ((${#missing[@]})) || return 0
    lacking="needs the Debian packages: ${missing[*]}; as root: apt-get install ${missing[*]}"
    command -v apt-get >/dev/null || return 1
    if ((EUID != 0)); then
        sudo -n true 2>/dev/null || return 1
        root=(sudo -n)
    fi
    printf 'installing %s\n' "${missing[*]}"
    logged 300 apt-update "${root[@]}" apt-get update
    logged 600 apt-install "${root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y --no-install-recommends "${missing[@]}" || show_failure apt-install
    for pair; do
        is_there "${pair#*:}" || return 1
    done
}

is_there() { command -v "$1" >/dev/null || [[ $1 == /* && -e $1 ]]; }

# What every suite needs.
set_up() {
    local problem
    if ! command -v cargo >/dev/null; then
        echo 'cargo is missing: install Rust with rustup (https://rustup.rs), then run this again.'
    elif ! problem=$(cargo --version 2>&1); then
        printf '%s\nThe toolchain of rust-toolchain.toml is missing: run "rustup toolchain install".\n' "$problem"
    elif ! need build-essential:c++ git:git; then
        echo "$lacking"
    else
        return 0
    fi
    ((++failed))
    return 1
}

# logged SECONDS NAME COMMAND...: runs COMMAND with its output in the log of NAME.
logged() {
    local limit=$(($1 * scale)) log=$out/$2.log status
    shift 2
    if declare -F "$1" >/dev/null; then
        set -- bash -c "set -o pipefail; $(declare -f "$1"); $1"
    fi
    timeout --kill-after=10 "$limit" "$@" >"$log" 2>&1 &
    child=$!
    wait "$child"
    status=$?
    child=
    ((status != 124 && status != 137)) || printf '\nerror: not done after %s s\n' "$limit" >>"$log"
    return "$status"
}

# The part of a log that says what went wrong.
show_failure() {
    local log=$out/$1.log part
    part=$(awk '/^(error|Diff in|---- |Failing input|failed on |artifact_prefix)|panicked at|^In .* line [0-9]+:/ { left = 25 }
        left-- > 0 && !/^ +([0-9]+: |at )|^stack backtrace|^note: Some details are omitted/' "$log")
    printf '%s\n' "${part:-$(tail -n 60 "$log")}" | head -n 200 | sed 's/^/  | /'
    printf '  whole log: %s\n' "$log"
}

# verdict NAME STARTED PASSED FAILED SKIPPED
verdict() {
    local word=ok
    (($4 == 0)) || word=FAIL
    ((passed += $3, failed += $4, skipped += $5))
    printf '%-4s  %-10s %s passed, %s failed, %s skipped (%s s)\n' "$word" "$1" "$3" "$4" "$5" "$((SECONDS - $2))"
}

interrupt() {
    [[ -z $child ]] || kill -TERM "$child" 2>/dev/null
    echo "interrupted (SIG$1)"
    ((++failed))
    finish
}

finish() {
    if [[ $CI == true ]] && ((skipped > 0)); then
        echo 'CI=true: nothing may be skipped.'
    fi
    printf '%s passed, %s failed, %s skipped\n' "$passed" "$failed" "$skipped"
    ((failed == 0 && passed > 0)) && ! { [[ $CI == true ]] && ((skipped > 0)); }
    exit
}
