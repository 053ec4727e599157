import math

import numpy as np

from ifttn.bench.memory import peak_bytes, reset_peak


def test_the_peak_of_a_cpu_is_that_of_the_process_since_it_was_reset():
    large = np.ones(1 << 28, np.uint8)
    before = peak_bytes("cpu")
    del large
    reset_peak("cpu")
    after = peak_bytes("cpu")
    assert math.isnan(after) or before - after > 0.9 * (1 << 28)
