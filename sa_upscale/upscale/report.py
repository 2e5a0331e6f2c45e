"""What a run did, as a JSON file that a later run can be given to do only what failed."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from sa_upscale import __version__, images
from sa_upscale.errors import UpscaleError
from sa_upscale.upscale.jobs import Job
from sa_upscale.upscale.work import Result, place

_DONE = ("done", "skipped")


def write(file: Path, jobs: Sequence[Job], results: Sequence[Result], options: dict) -> None:
    """Write what became of the `jobs`, of which the first have `results`; the others were not reached."""
    told = [_facts(result) for result in results]
    told += [
        {"source": job.source and str(job.source), "target": job.target and str(job.target), "status": "not reached"}
        for job in jobs[len(results) :]
    ]
    content = {"tool": f"sa-upscale {__version__}", "options": options, "results": told}
    with images.replacing(file) as stream:
        stream.write(json.dumps(content, indent=1, ensure_ascii=False).encode("utf-8", "surrogateescape") + b"\n")


def _facts(result: Result) -> dict:
    status = "failed" if result.error is not None else "skipped" if result.skipped else "done"
    facts = {key: value for key, value in dataclasses.asdict(result).items() if key != "skipped"}
    facts |= {"source": result.source and str(result.source), "target": result.target and str(result.target)}
    return facts | {"status": status, "seconds": round(result.seconds, 3)}


def failed(file: Path, jobs: Sequence[Job]) -> list[Job]:
    """Those of the `jobs` that the earlier run told of in `file` did not finish.

    Raises `UpscaleError` for a file that is no report, and when there is nothing left to do.
    """
    try:
        results = json.loads(file.read_bytes().decode("utf-8", "surrogateescape"))["results"]
        left = {place(Path(told["source"])) for told in results if told["status"] not in _DONE and told["source"]}
    except OSError as error:
        raise UpscaleError(f"the report {file} cannot be read: {error.strerror or error}") from None
    except (ValueError, LookupError, TypeError):
        raise UpscaleError(f"{file} is no report of an earlier run; give the file that --report wrote") from None
    again = [job for job in jobs if job.source and place(job.source) in left]
    if not again:
        raise UpscaleError(f"{file} tells of nothing that failed among these inputs")
    return again
