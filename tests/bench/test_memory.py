import subprocess
import sys

PEAKS = """
import numpy as np

from ifttn.bench.memory import peak_bytes, reset_peak

large = np.ones(1 << 28, np.uint8)
before = peak_bytes("cpu")
del large
reset_peak("cpu")
print(before - peak_bytes("cpu"))
"""


def test_the_peak_of_a_cpu_is_that_of_the_process_since_it_was_reset():
    # In a process of its own: other tests leave threads and memory behind, which move this one's size.
    printed = subprocess.run([sys.executable, "-c", PEAKS], check=True, capture_output=True, text=True).stdout
    assert printed == "nan\n" or float(printed) > 0.9 * (1 << 28)
