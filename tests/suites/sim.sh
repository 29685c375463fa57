# Linked control planes in made-up time: tests/sim.
# shellcheck shell=bash disable=SC2154

# suite sim: linked control planes on a made-up network in made-up time, 500 seeds (soak: 10,000)
suite_sim() {
    local crate optimised=()
    # Thirteen times as fast, but it takes minutes to build: worth it for many seeds. Sums and assertions stay checked.
    if ((scale > 1)); then
        for crate in model api control tests; do
            optimised+=(--config "profile.dev.package.corinth-$crate.opt-level=2")
        done
    fi
    cargo_tests 300 sim "${optimised[@]}" -p corinth-tests --test sim
}
