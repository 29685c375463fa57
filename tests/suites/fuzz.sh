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
    if cargo_tool cargo-fuzz; then
        # Without a sanitizer stable will do, and twice as fast: there is no unsafe code of ours for one to watch.
        step 2400 fuzz-build cargo fuzz build --fuzz-dir tests/fuzz --target-dir "$target/fuzz" \
            --sanitizer none --codegen-units 16 || return
        for name in "${names[@]}"; do
            step $((fuzz_seconds + 60)) "fuzz-$name" "$target/fuzz/$(host_triple)/release/$name" \
                "$cache/corpus/$name" "tests/fuzz/corpus/$name" -artifact_prefix="$out/$name-" \
                -max_total_time="$fuzz_seconds" -max_len=8192 -timeout=5 -rss_limit_mb=2048
        done
    else
        printf '%s; bytes are mutated without regard to coverage\n' "$lacking"
        step 2400 fuzz-build \
            cargo build --release --manifest-path tests/fuzz/Cargo.toml --target-dir "$target/fuzz" || return
        for name in "${names[@]}"; do
            step $((fuzz_seconds + 60)) "fuzz-$name" \
                "$target/fuzz/release/$name" "$fuzz_seconds" "tests/fuzz/corpus/$name"
        done
    fi
}

host_triple() { rustc -vV | sed -n 's/^host: //p'; }

# The fuzz workspace starts from the lock file of the root; cargo adds libFuzzer to it.
fuzz_lock() {
    [[ tests/fuzz/Cargo.lock -nt Cargo.lock ]] || cp Cargo.lock tests/fuzz/Cargo.lock
}
