"""Turn a run's best weights into a file to ship: half precision, what it took to train in the metadata.

    python tools/bundle.py runs/compact-x4 sa_upscale/bundled/compact-x4.safetensors --hardware "2 CPU cores" \\
        --command "sa-upscale train …" --licence Apache-2.0 --trained-on "…"

Prints the sha256 for `weights.toml`.
"""

import argparse
import json
from pathlib import Path

from sa_upscale import checkpoints

_SAVED = ("architecture", "parameters", "scale", "window")  # what saving writes by itself


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run's folder")
    parser.add_argument("target", type=Path, help="the file to write")
    for fact in ("command", "hardware", "licence", "trained-on"):
        parser.add_argument(f"--{fact}", required=True)
    arguments = parser.parse_args()
    best = checkpoints.load(str(arguments.run / "best.safetensors"))
    seed = json.loads(best.metadata["recipe"])["stages"][-1]["train"]["seed"]
    named = {"command", "hardware", "licence", "trained_on"}
    facts = {key: value for key, value in best.metadata.items() if key not in _SAVED}
    facts |= {"seed": str(seed)} | {key: value for key, value in vars(arguments).items() if key in named}
    print(
        checkpoints.save(
            arguments.target,
            best.model.state_dict(),
            architecture=best.metadata["architecture"],
            parameters=best.model.parameters_dict,
            metadata=facts,
            dtype="fp16",
        )
    )


if __name__ == "__main__":
    main()
