"""Facts about motion vectors in the headers of an H.264 stream (ITU-T H.264, sections 7.3.1 and 7.3.2.1.1)."""

import re
from dataclasses import dataclass

# Profiles whose parameters also contain the chroma format and the bit depth.
_HIGH = (44, 83, 86, 100, 110, 118, 122, 128, 134, 135, 138, 139, 144, 244)
_PARAMETERS = re.compile(rb"\x00\x00\x01[\x27\x47\x67]")
# A slice after a start code. Its first byte is 0x20 or more if later frames may refer to it.
_SLICE = re.compile(rb"\x00\x00\x01([\x01\x21\x41\x61\x05\x25\x45\x65])")


@dataclass(frozen=True)
class Parameters:
    """Parameters of an H.264 stream."""

    references: int
    """Number of decoded frames that later frames may refer to."""
    progressive: bool
    """Whether every frame is coded as one picture and not as two interlaced fields."""
    length_size: int
    """Bytes of the length before each unit of a packet; 0 if start codes separate units."""


def parameters(header: bytes) -> Parameters | None:
    """The parameters in the decoder's header in a container. None if it has no parameters, or has scaling matrices."""
    if header[:1] == b"\1" and len(header) > 8:
        unit, length_size = header[8 : 8 + int.from_bytes(header[6:8])], (header[4] & 3) + 1
    elif found := _PARAMETERS.search(header):
        unit, length_size = header[found.end() - 1 :], 0
    else:
        return None
    try:
        return _parsed(unit, length_size)
    except ValueError:
        return None


def is_reference(packet: memoryview, length_size: int) -> bool:
    """Whether later frames may refer to the picture in the packet. All slices of a picture have the same value."""
    if not length_size:
        found = _SLICE.search(packet)
        return found is None or found[1][0] >= 0x20
    at = 0
    while at + length_size < len(packet):
        kind = packet[at + length_size]
        if kind & 31 in (1, 5):
            return kind >= 0x20
        at += length_size + int.from_bytes(packet[at : at + length_size])
    return True


def _parsed(unit: bytes, length_size: int) -> Parameters | None:
    bits = _Bits(unit[1:].replace(b"\0\0\3", b"\0\0"))
    profile = bits.take(8)
    bits.take(16)  # constraints, level
    bits.number()  # number of the parameter set
    if profile in _HIGH:
        if bits.number() == 3:  # 4:4:4
            bits.take(1)
        bits.skip("nn1")  # bit depths, lossless
        if bits.take(1):
            return None
    bits.number()  # length of frame numbers
    order = bits.number()
    if order == 0:
        bits.number()
    elif order == 1:
        bits.skip("1nn")
        bits.skip("n" * bits.number())
    references = bits.number()
    bits.skip("1nn")  # gaps, width, height
    return Parameters(references, bool(bits.take(1)), length_size)


class _Bits:
    def __init__(self, data: bytes) -> None:
        self.rest = "".join(f"{byte:08b}" for byte in data)

    def take(self, count: int) -> int:
        """The next bits as a number. Raises ValueError beyond the end."""
        taken, self.rest = self.rest[:count], self.rest[count:]
        return int(taken, 2)

    def skip(self, codes: str) -> None:
        """Skip one bit for each "1" and one number for each "n"."""
        for code in codes:
            self.take(1) if code == "1" else self.number()

    def number(self) -> int:
        """The next unsigned Exp-Golomb code (section 9.1)."""
        zeros = self.rest.index("1")
        self.rest = self.rest[zeros:]
        return self.take(zeros + 1) - 1
