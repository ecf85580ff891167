"""The process in which grammars are tried: it may be killed at any time.

Started by `skipserve.grammar.compiler` as `python -m skipserve.grammar.worker FD SPEC`, FD an
inherited socket and SPEC a CompilerSpec as JSON. It lives as long as its parent holds the socket.
"""

import socket
import sys

from skipserve.grammar.fault import GrammarFaultError
from skipserve.grammar.matcher import compiled
from skipserve.grammar.messages import (
    Compiled,
    CompilerSpec,
    Refused,
    Reply,
    pack,
    spec_from_json,
    to_compiler,
)
from skipserve.grammar.structure import Shape
from skipserve.grammar.vocabulary import Vocabulary
from skipserve.grammar.writing import written
from skipserve.logging_setup import set_up_logging
from skipserve.workers.child import limited, live_and_die_with_parent, read_frame
from skipserve.workers.frames import frame


def main() -> int:
    """Run the process; return its exit status."""
    live_and_die_with_parent()
    spec = spec_from_json(sys.argv[2])
    set_up_logging(as_json=spec.logs_json)
    vocabulary = _vocabulary(spec)
    with socket.socket(fileno=int(sys.argv[1])) as connection, connection.makefile("rb") as stream:
        while (body := read_frame(stream)) is not None:
            with limited(spec.cpu_seconds, spec.memory_bytes):
                reply = _answer(to_compiler(body).shape, vocabulary)
            connection.sendall(frame(pack(reply)))
    return 0


def _vocabulary(spec: CompilerSpec) -> Vocabulary | GrammarFaultError:
    try:
        return Vocabulary.from_folder(spec.model)
    except GrammarFaultError as fault:
        return fault


def _answer(shape: Shape, vocabulary: Vocabulary | GrammarFaultError) -> Reply:
    """Compile a shape, and see that an answer can begin in it."""
    try:
        if isinstance(vocabulary, GrammarFaultError):
            raise vocabulary
        grammar = written(shape)
        compiled(grammar, vocabulary).mask()
    except GrammarFaultError as fault:
        return Refused(fault.message, fault.param)
    except (MemoryError, RecursionError):
        return Refused("it takes more memory than it may")
    return Compiled(grammar)


if __name__ == "__main__":
    sys.exit(main())
