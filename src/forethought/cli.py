"""The command line: ``forethought data | train | evaluate | plan | study | report | ...``.

Help and version answer at once; all else imports PyTorch first (``cli_parse.py``).
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence

from forethought import __version__

_HELP = """forethought: learn generative models of trajectories from logged data, and plan with
them.

  forethought demo                             see all of it run, in minutes
  forethought list                             what there is: recipes, data sets, environments
  forethought data build maze-umaze            make a data set (or: data import FILE, info FOLDER)
  forethought train diffuser/maze-umaze        learn from it
  forethought evaluate runs/diffuser/maze-umaze/seed0 --episodes 100
  forethought bench runs/diffuser/maze-umaze/seed0         score against planning time, here
  forethought plan pretrained/diffuser/maze-large --start 1 1 --goal 7 9
  forethought study table-5-1                  recompute a table or figure of the thesis
  forethought report runs --out report         tables, figures, one HTML page

Every command explains its flags: forethought train diffuser/maze-umaze --help
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point; user errors become one line on stderr and exit code 1."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        print(_HELP)
        raise SystemExit(0)
    if words[0] == "--version":
        print(__version__)
        raise SystemExit(0)
    from gymnasium.error import Error as GymnasiumError

    from forethought.cli_parse import parse
    from forethought.training import TrainingInterrupted

    try:
        parse(words).run()
    except TrainingInterrupted as error:
        command = shlex.join(word for word in words if word != "--resume")
        _fail(f"{error}. Saved; go on with:\n  forethought {command} --resume", code=130)
    except KeyboardInterrupt:
        _fail("interrupted", code=130)
    except (ValueError, KeyError, OSError, ArithmeticError, ImportError, GymnasiumError) as error:
        message = error.args[0] if isinstance(error, KeyError) and error.args else error
        _fail("error: " + " ".join(str(message).split()), code=1)


def _fail(message: str, *, code: int) -> None:
    print(message, file=sys.stderr)
    raise SystemExit(code)
