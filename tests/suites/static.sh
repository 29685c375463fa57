# What can be judged without running Corinth.
# shellcheck shell=bash disable=SC2154

# suite fmt: formatting
suite_fmt() {
    step 120 fmt format_check
}

format_check() {
    cargo fmt --all --check -- --color never &&
        cargo fmt --manifest-path tests/fuzz/Cargo.toml --check -- --color never
}

# suite shell: shell scripts, by shellcheck
suite_shell() {
    if ! need shellcheck:shellcheck; then
        skip shell "$lacking"
        return
    fi
    step 120 shell shell_check
}

shell_check() {
    git grep -lzI -E '^#!.*\b(ba)?sh\b|^# shellcheck shell=' -- . | xargs -0 shellcheck
}

# suite clippy: lints, as errors
suite_clippy() {
    step 2400 clippy cargo clippy "${locked[@]}" --keep-going --workspace --all-targets -- -D warnings
    fuzz_lock
    step 600 clippy-fuzz cargo clippy --manifest-path tests/fuzz/Cargo.toml --target-dir "$target" \
        --all-targets -- -D warnings
}

# suite doc: cargo doc without warnings
suite_doc() {
    step 2400 doc env RUSTDOCFLAGS=-Dwarnings cargo doc "${locked[@]}" --keep-going --workspace --no-deps --lib
}

# suite deny: licences, sources and advisories, by cargo-deny; only when named, it needs the advisory database
suite_deny() {
    if ! cargo_tool cargo-deny; then
        skip deny "$lacking"
        return
    fi
    step 600 deny cargo deny --locked check
}

# cargo_tool NAME: is the cargo subcommand there? Builds it into the cache if it is not.
cargo_tool() {
    PATH=$cache/tools/bin:$PATH
    ! command -v "$1" >/dev/null || return 0
    printf 'building %s into %s\n' "$1" "$cache/tools"
    lacking="$1 could not be installed; see $out/$1.log"
    CARGO_TARGET_DIR=$cache/tools/target logged 1800 "$1" \
        cargo install "$1" --locked --root "$cache/tools" || return 1
    rm -rf "$cache/tools/target"
}
