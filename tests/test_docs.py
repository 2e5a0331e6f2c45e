import re
import shlex
from pathlib import Path

from sa_upscale import config
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def commands():
    blocks = re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL)
    return [line.split("  #")[0].strip() for block in blocks for line in block.splitlines()]


def test_ci_runs_the_readme_test_command():
    (command,) = [line for line in commands() if "pytest" in line]
    assert command in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()


def test_what_the_readme_points_to_is_there():
    for target in [*re.findall(r"\]\(([^)#]+)\)", README), "examples/dragonfly.jpg", "constraints.txt"]:
        assert (ROOT / target).is_file(), target
    for line in commands():
        words = shlex.split(line)
        if "--config" in words and not (recipe := words[words.index("--config") + 1]).endswith(".toml"):
            assert recipe in config.names()


def test_the_sample_photo_is_small():
    assert Path(ROOT / "examples" / "dragonfly.jpg").stat().st_size < 100_000
