"""One zlib stream made by several threads: a large PNG would otherwise take a third as long to pack as to upscale."""

import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

from sa_upscale import processors

THREADS = min(8, processors.count())
SAMPLE = 1 << 16  # bytes of a piece by which its strategy is chosen
_HEADER = b"\x78\x5e"  # a window of 32 KiB, made fast


def deflated(parts: Iterable[Callable[[], bytes]], level: int) -> Iterator[bytes]:
    """Pieces of the zlib stream of all that `parts` return, in their order.

    The parts are called and packed in threads, each by itself: the packed bytes do not depend on how many threads there
    are.  No more parts are asked for than there are threads to work on them.  What a part raises is raised here.

    Reference: RFC 1950; the pieces are joined by empty stored blocks (RFC 1951, 3.2.4).
    """
    checksum, held = zlib.adler32(b""), _HEADER
    for plain, packed in _in_order(parts, level):
        checksum = zlib.adler32(plain, checksum)
        # Header and end go with pieces, so that none is of a few bytes only.
        if len(held) > len(_HEADER):
            yield held
            held = b""
        held += packed
    end = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS).flush(zlib.Z_FINISH)
    yield held + end + checksum.to_bytes(4, "big")


def _in_order(parts: Iterable[Callable[[], bytes]], level: int) -> Iterator[tuple[bytes, bytes]]:
    with ThreadPoolExecutor(THREADS, "deflate") as threads:
        waiting = deque()
        for part in parts:
            waiting.append(threads.submit(_piece, part, level))
            if len(waiting) > THREADS:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _piece(part: Callable[[], bytes], level: int) -> tuple[bytes, bytes]:
    plain = part()
    # The filtered rows of photographs hardly repeat: to look for runs only takes a third of the time and gives fewer
    # bytes.  Those of text and drawings do repeat.
    middle = max(0, len(plain) - SAMPLE) // 2
    sample = memoryview(plain)[middle : middle + SAMPLE]
    strategy = min((zlib.Z_RLE, zlib.Z_DEFAULT_STRATEGY), key=lambda strategy: len(_packed(sample, level, strategy)))
    return plain, _packed(plain, level, strategy)


def _packed(plain: bytes | memoryview, level: int, strategy: int) -> bytes:
    deflate = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, strategy)
    return deflate.compress(plain) + deflate.flush(zlib.Z_SYNC_FLUSH)
