"""Phase A: images to shards of vectors on disk; a run can be killed anywhere and goes on."""

from byname.runs.local import embed_source
from byname.runs.plan import Plan, Settings, make_plan

__all__ = ["Plan", "Settings", "embed_source", "make_plan"]
