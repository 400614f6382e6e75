"""ARM64 instructions of one onnxruntime inference, counted under qemu-user: never a latency."""

from benchmarks.arm64.counting import CPU, instructions
from benchmarks.arm64.system import PINS

__all__ = ["CPU", "PINS", "instructions"]
