# Bytes of strangers: tests/fuzz.
# shellcheck shell=bash disable=SC2154

# suite fuzz: every parser against random bytes, 10 s each (soak: 5 minutes)
suite_fuzz() {
    local name names=()
    fuzz_lock
    for name in tests/fuzz/src/bin/*.rs; do
        names+=("$(basename "$name" .rs)")
    done
    mkdir -p "${names[@]/#/$cache/corpus/}"
    if rustup toolchain list 2>/dev/null | grep -q '^nightly' && cargo_tool cargo-fuzz; then
        step 2400 fuzz-build cargo +nightly fuzz build --fuzz-dir tests/fuzz --target-dir "$target/fuzz" || return
        for name in "${names[@]}"; do
            step $((fuzz_seconds + 60)) "fuzz-$name" \
                cargo +nightly fuzz run --fuzz-dir tests/fuzz --target-dir "$target/fuzz" "$name" \
                "$cache/corpus/$name" "tests/fuzz/corpus/$name" -- \
                -max_total_time="$fuzz_seconds" -max_len=8192 -timeout=5 -rss_limit_mb=2048
        done
    else
        echo 'no nightly toolchain or no cargo-fuzz: bytes are mutated without regard to coverage, on stable'
        step 2400 fuzz-build cargo build --release --manifest-path tests/fuzz/Cargo.toml --target-dir "$target/fuzz" ||
            return
        for name in "${names[@]}"; do
            step $((fuzz_seconds + 60)) "fuzz-$name" \
                "$target/fuzz/release/$name" "$fuzz_seconds" "tests/fuzz/corpus/$name"
        done
    fi
}

# The fuzz workspace starts from the lock file of the root; cargo adds libFuzzer to it.
fuzz_lock() {
    [[ tests/fuzz/Cargo.lock -nt Cargo.lock ]] || cp Cargo.lock tests/fuzz/Cargo.lock
}
