"""``python -m flowers <verb>``: the door, which opens fast and leaves the heavy imports to the verb."""

from __future__ import annotations

import io
import sys
import traceback
from pathlib import Path

from flowers import startup

VERBS = {
    "audit": "look for broken files, copies and contradicting labels before training",
    "fit": "train a network",
    "validate": "evaluate a checkpoint on the validation split",
    "test": "evaluate a checkpoint on the test split",
    "calibrate": "fit a checkpoint's temperature and rejection threshold anew",
    "compare": "put runs beside each other, with a test on shared test images",
    "export": "write a checkpoint as ONNX or torch.export",
    "predict": "classify images with a checkpoint: any (--data.predict_path), or the test split",
}

HELP = """usage: python -m flowers <verb> [--config FILE ...] [options]

Turn a folder of labelled photos into a classifier a person can trust.

verbs:
{verbs}

  python -m flowers fit --config configs/quickstart.yaml   train on drawn flowers, nothing else needed
  python -m flowers fit --config configs/cnn.yaml          train on flower_photos, downloaded when missing
  python -m flowers audit --root DIR                       what is wrong with a folder of photos
  python -m flowers <verb> --help                          all options of a verb
""".format(verbs="\n".join(f"  {verb:<10} {purpose}" for verb, purpose in VERBS.items()))


def main(args: list[str]) -> int:
    """Run a verb and return the exit status."""
    if not args or args[0] in ("-h", "--help"):
        print(HELP)
        return 0
    if args[0] not in VERBS:
        print(f"flowers: expected one of {', '.join(VERBS)} as the first word, got {args[0]!r}.", file=sys.stderr)
        print("The verb comes before all options: python -m flowers fit --config FILE", file=sys.stderr)
        return 2
    startup.prepare()
    # A file name that is no UTF-8 must not end a run when it is printed.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        return _run(args)
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        # An error that the package itself raised answers the user; any other is a bug and keeps its traceback.
        if (answer := _own_error(error)) is not None:
            print(f"flowers: {answer}", file=sys.stderr)
        elif args[0] == "audit":  # whose status 1 says that it ran
            traceback.print_exc()
        else:
            raise
        return 2 if args[0] == "audit" else 1


def _own_error(error: BaseException | None) -> BaseException | None:
    """Return what the package itself raised for the user, in an error or beneath it: jsonargparse wraps a model's."""
    while error is not None:
        frames = traceback.extract_tb(error.__traceback__)
        ours = bool(frames) and Path(frames[-1].filename).is_relative_to(Path(__file__).parent)
        if ours and isinstance(error, ValueError | OSError | FloatingPointError):
            return error
        error = error.__cause__
    return None


def _run(args: list[str]) -> int:
    if args[0] == "audit":
        from flowers import audit  # noqa: PLC0415

        return audit.main(args[1:])
    asks = args[0] == "predict" and not {"-h", "--help"}.isdisjoint(args)
    if asks or (
        args[0] == "predict" and any(word.startswith(("--data.pred", "--predictions.contact")) for word in args)
    ):
        from flowers import predict  # noqa: PLC0415

        return predict.main(["--help"] if asks else args[1:])
    if args[0] == "export":
        from flowers import export  # noqa: PLC0415

        return export.main(args[1:])
    if args[0] == "compare":
        from flowers import compare  # noqa: PLC0415

        compare.main(args[1:])
        return 0
    from flowers import cli  # noqa: PLC0415 (importing Lightning takes seconds)

    if args[0] == "calibrate":
        cli.calibrate(args[1:])
    else:
        cli.main(args)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
