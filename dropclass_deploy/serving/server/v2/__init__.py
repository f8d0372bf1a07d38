"""The Open Inference Protocol V2."""

from fastapi import APIRouter


def router() -> APIRouter:
    """Nothing yet."""
    return APIRouter()
