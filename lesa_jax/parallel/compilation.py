"""A program compiled for a target: the memory that it needs there, and what it does."""

import re
from dataclasses import dataclass

import jax

from lesa_jax.base.errors import InputError
from lesa_jax.parallel.hlo import Program, read_program
from lesa_jax.parallel.targets import Target

NO_ROOM = re.compile(r"Used ([\d.]+)([KMGT]?) of [\d.]+[KMGT]? hbm", re.IGNORECASE)
UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclass(frozen=True)
class Compilation:
    """What a compiler says of a program.

    Attributes:
      total: bytes that one chip needs: arguments, results, temporaries, and the program itself; None if the compiler
        refused it for want of memory and did not say.
      program: without instructions if it was refused.
    """

    total: int | None
    program: Program


def compile_lowered(lowered: jax.stages.Lowered, target: Target) -> Compilation:
    """Compiles a program that was lowered for the target's devices.

    Raises:
      InputError: the compiler refuses it for another reason than memory.
    """
    try:
        compiled = compile_or_fall_back(lowered)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            reason = str(error).split("\n")[0]
            raise InputError(f"--compile-for {target.name}: the compiler refuses the program ({reason})") from error
        return Compilation(needed(str(error)), Program({}, ""))
    memory, text = compiled.memory_analysis(), compiled.as_text()
    assert memory is not None
    assert text is not None
    total = (
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
        + memory.temp_size_in_bytes
        + memory.generated_code_size_in_bytes
    )
    return Compilation(total, read_program(text))


def compile_or_fall_back(lowered: jax.stages.Lowered) -> jax.stages.Compiled:
    """The executable; where XLA's own products find no tiles for some shape, as for rows that only a large prime
    divides, with the library's products. On a GPU both are tried out, of which there is none here."""
    try:
        return lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "tile sizes" not in str(error):
            raise
        return lowered.compile(compiler_options={"xla_gpu_enable_triton_gemm": False})


def needed(message: str) -> int | None:
    """The bytes that the TPU's compiler says a program would need."""
    found = NO_ROOM.search(message)
    return round(float(found[1]) * UNITS[found[2].upper()]) if found else None
