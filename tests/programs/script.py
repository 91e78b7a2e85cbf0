"""What Debian's python3 can do, with modules of its library that are written in C and in Python."""
import array
import asyncio
import bisect
import collections
import decimal
import fractions
import functools
import hashlib
import itertools
import json
import math
import os
import re
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import zlib

print(sys.version_info[:2] >= (3, 0), sum(itertools.takewhile(lambda n: n < 5000, itertools.count())))
print(math.factorial(150), 3**500 % 1000007, divmod(-(10**40), 7**13))
for x in (0.1, 1.7, -2.5, 1e10):
    print(repr(math.sqrt(abs(x))), repr(x**2), repr(math.fsum([x] * 10)), f"{x:.3e} {x!r:>20}", round(x, 1))
print(decimal.Decimal(2).sqrt(decimal.Context(prec=60)), fractions.Fraction(355, 113) ** 3)
print(statistics.mean([1, 2, 3, 4.5]), statistics.pstdev([1.5, 2.5, 2.75]))
data = bytes((i * 31 + (i >> 5)) & 255 for i in range(60000))
for name in ("md5", "sha1", "sha256", "sha512", "sha3_256", "blake2b"):
    print(name, hashlib.new(name, data).hexdigest())
packed = zlib.compress(data, 9)
print(zlib.crc32(data), zlib.adler32(data), zlib.decompress(packed) == data)
tree = {"list": [1, 2.5, None, True], "text": "\u00fc\u4e2d", "nested": {"deep": list(range(20))}}
text = json.dumps(tree, sort_keys=True)
print(text, json.loads(text) == tree)
print(struct.pack("<bHiqfd", -1, 65535, -5, 2**40, 1.5, math.pi).hex())
print(re.sub(r"(\w+)@(\w+)\.com", r"\2 at \1", "ann@example.com, bob@test.com"), len(re.findall(r"a.{0,3}b", "axxb ab aayb" * 500)))


@functools.lru_cache(None)
def ways(n, coins=(200, 100, 50, 20, 10, 5, 2, 1)):
    if n == 0:
        return 1
    return sum(ways(n - c, coins[i:]) for i, c in enumerate(coins) if c <= n)


print("ways", ways(100))
counter = collections.Counter("".join(chr(97 + i * i % 26) for i in range(3000)))
print(counter.most_common(5), bisect.bisect(sorted(counter.values()), 200))
numbers = array.array("d", (math.sin(i) for i in range(2000)))
print(f"{sum(numbers):.12f} {max(numbers):.12f}")

total, lock = 0, threading.Lock()


def work(n):
    global total
    for i in range(300):
        with lock:
            total += i * n


threads = [threading.Thread(target=work, args=(n,)) for n in range(5)]
[t.start() for t in threads]
[t.join() for t in threads]
print("threads", total)


async def step(n):
    await asyncio.sleep(0.001 * n)
    return n * n


async def steps():
    return await asyncio.gather(*(step(n) for n in range(10)))


print("asyncio", asyncio.run(steps()))
print(subprocess.run(["sh", "-c", "read x; echo got $x; exit 9"], input=b"text\n", capture_output=True))
with tempfile.TemporaryDirectory() as folder:
    for n in range(50):
        with open(os.path.join(folder, f"file{n:02}"), "w") as f:
            f.write("x" * n)
    print(sorted(os.listdir(folder))[-3:], sum(e.stat().st_size for e in os.scandir(folder)))
child = os.fork()
if child == 0:
    os._exit(6)
print("child", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
signal.signal(signal.SIGUSR1, lambda number, frame: print("signal", number))
os.kill(os.getpid(), signal.SIGUSR1)
try:
    1 / 0
except ZeroDivisionError as e:
    print("caught", e)
try:
    [].nothing
except AttributeError as e:
    print("caught", e)
