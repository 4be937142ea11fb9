"""`python -m bench [name …]`: run some or all of the benchmarks, one after another. `--list` names them."""

import argparse
import importlib
import sys

from bench import harness

QUESTIONS = ("cancel_race", "cancel_end", "accept", "fanout", "resume", "start", "store_writes")


def main() -> int:
    """Run what is asked for; the exit code is 1 if anything that was checked did not hold."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=f"one of: {', '.join(QUESTIONS)}; without any, all")
    parser.add_argument("--list", action="store_true", help="name the benchmarks and what they ask")
    harness.add_common_arguments(parser)
    options = parser.parse_args()
    if unknown := sorted(set(options.names) - set(QUESTIONS)):
        parser.error(f"there is no benchmark {unknown[0]!r}; there are: {', '.join(QUESTIONS)}")
    modules = {name: importlib.import_module(f"bench.{name}") for name in options.names or QUESTIONS}
    if options.list:
        for name, module in modules.items():
            print(f"{name:14} {(module.__doc__ or '').partition(chr(10))[0]}")
        return 0
    arguments = ["--json"] if options.json else []
    return max([harness.run(module, arguments) for module in modules.values()], default=0)


if __name__ == "__main__":
    sys.exit(main())
