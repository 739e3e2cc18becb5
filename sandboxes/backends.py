"""The names of the backends behind `Sandbox(backend=...)`: who runs the workers.

    local                     our own confinement, tier A, B or C
    bubblewrap                bwrap builds tier A's namespaces and root
    docker:IMAGE podman:IMAGE one container per slot; IMAGE must hold a python3
    http://... https://...    a service that speaks SandboxFusion's /run_code

The judge is the same for all: no backend's exit status or printed text ever means success.
"""

from __future__ import annotations

LOCAL, BUBBLEWRAP = "local", "bubblewrap"
ENGINES = ("docker", "podman")


def is_remote(backend: str) -> bool:
    """Whether programs run on another machine."""
    return backend.startswith(("http://", "https://"))


def container(backend: str) -> tuple[str, str] | None:
    """(engine, image) of a container backend, or None."""
    engine, _, image = backend.partition(":")
    return (engine, image) if engine in ENGINES and image else None


def tiers(backend: str, wanted: str) -> tuple[str, ...]:
    """The tiers to try, best first. Raises ValueError for an unknown backend or a tier it does not have."""
    if backend == LOCAL:
        offered: tuple[str, ...] = ("A", "B", "C")
    elif backend == BUBBLEWRAP or container(backend):
        offered = ("A",)
    elif is_remote(backend):
        offered = ("remote",)
    else:
        raise ValueError(f"backend must be local, bubblewrap, docker:IMAGE, podman:IMAGE or a URL, not {backend!r}")
    if wanted == "auto":
        return offered
    if wanted not in offered:
        raise ValueError(f"backend {backend!r} has no tier {wanted!r}, only {', '.join(offered)}")
    return (wanted,)
