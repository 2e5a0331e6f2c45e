"""Turn a run's best weights into a file to ship: half precision, no paths, what it took to train in the metadata.

    python tools/bundle.py runs/compact-x4 sa_upscale/bundled/compact-x4.safetensors --hardware "2 CPU cores" \\
        --command "sa-upscale train …" --licence Apache-2.0 --trained-on "…"

Prints the sha256 for `weights.toml`.
"""

import argparse
import json
from pathlib import Path

from sa_upscale import checkpoints


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run's folder")
    parser.add_argument("target", type=Path, help="the file to write")
    for fact in ("command", "hardware", "licence", "trained-on"):
        parser.add_argument(f"--{fact}", required=True)
    arguments = parser.parse_args()
    best = checkpoints.load(str(arguments.run / "best.safetensors"))
    recipe = json.loads(best.metadata["recipe"])
    # Where the pictures lay on the machine that trained is nobody's business; their folders' names say enough.
    recipe["data"]["folders"] = [Path(folder).name for folder in recipe["data"]["folders"]]
    for section, key in (("data", "validation"), ("model", "start")):
        recipe[section][key] = recipe[section][key] and Path(recipe[section][key]).name
    facts = {key: best.metadata[key] for key in ("steps", "hours", "validation_psnr_y")}
    facts |= {"recipe": json.dumps(recipe), "seed": str(recipe["train"]["seed"]), "command": arguments.command}
    facts |= {"hardware": arguments.hardware, "licence": arguments.licence, "trained_on": arguments.trained_on}
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
