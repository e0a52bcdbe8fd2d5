//! What the C library's part for mathematics would be mapped for, half a MB in each proxy: tokio's scheduler for many
//! threads, which is linked and which no proxy runs, calls `pow`. It finds this one, and the program needs no other.

/// As C has it (ISO C17, 7.12.7.4).
#[expect(unsafe_code, reason = "the name must be C's; whoever calls it gets what C promises of it")]
#[unsafe(no_mangle)]
extern "C" fn pow(base: f64, exponent: f64) -> f64 {
    libm::pow(base, exponent)
}
