"""Energy by arithmetic, for machines without a counter: what the operations would cost, not what ran.

Constants: M. Horowitz, "Computing's energy problem (and what we can do about it)", ISSCC 2014,
figures for 45 nm at 0.9 V. A newer chip spends less on both; the share between arithmetic and memory
is what carries over, so such a figure ranks models but is no electricity bill. Needs no torch, so
that a plan can be priced before any model is loaded.
"""

from hpo.errors import Unsupported

PJ_PER_MAC = {32: 3.7 + 0.9, 16: 1.1 + 0.4}
"""One floating-point multiply and one add, in pJ, by the bits of a number."""
PJ_PER_DRAM_BYTE = 640 / 4
"""A 32-bit read from DRAM is about 640 pJ."""
_MJ_PER_PJ = 1e-9


def modelled_energy_mj_per_token(
    prefill_macs: int, weight_bytes: int, context: int, dtype_bits: int
) -> float:
    """Return the modelled energy of one prompt token, in mJ, of a batch-1 prefill of `context` tokens.

    Counts `prefill_macs` multiply-accumulates and one read of all weights from DRAM. Does not count
    activations, caches, leakage, or anything but the weights' traffic.

    Raises:
        Unsupported: no published figure for numbers of `dtype_bits` bits.
    """
    if dtype_bits not in PJ_PER_MAC:
        raise Unsupported(
            f"no published energy of a {dtype_bits}-bit multiply-accumulate",
            f"modelled energy knows weights of {' and '.join(map(str, sorted(PJ_PER_MAC)))} bits",
        )
    picojoules = prefill_macs * PJ_PER_MAC[dtype_bits] + weight_bytes * PJ_PER_DRAM_BYTE
    return picojoules * _MJ_PER_PJ / context
