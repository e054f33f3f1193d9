"""The errors of machines and containers, drawn as one tree. Messages say what happened, to what, and what to do.

WorkError                       what user input or surroundings caused; its text may be shown to the user as it is
├── StartError                  a container could not be started
│   ├── ImageError              image missing, wrong architecture, nothing to run in it, no credentials
│   └── UnsupportedError        this driver cannot honour a field
├── ContainerMissing            the engine no longer knows the container
├── EngineAway                  the container engine does not answer
├── StorageError                an object store could not be read or written
│   ├── ObjectNotFound          nothing lies at that URI
│   ├── ObjectChanged           an object is another than when its reading began
│   ├── ChecksumMismatch        bytes came that are not those of the object
│   └── Fenced                  a checkpoint location that a later start of the job has claimed
├── ArchiveError                a model archive that must not be unpacked
├── PackagingError              source code that could not be made runnable
└── ScoringError                a scoring container that does not answer
"""


class WorkError(Exception):
    """The root: something the user can mend, told in words for the user."""


class StartError(WorkError):
    """A container could not be started."""


class ImageError(StartError):
    """The image is missing, of another architecture, has nothing to run, or may not be pulled."""


class UnsupportedError(StartError):
    """The driver cannot honour a field of the spec; it names the field and the remedy."""


class ContainerMissing(WorkError):
    """The engine no longer knows the container."""


class EngineAway(WorkError):
    """The container engine does not answer. What it runs may well go on, so nothing is known of it for now."""


class StorageError(WorkError):
    """An object store could not be read or written."""


class ObjectNotFound(StorageError):
    """Nothing lies at that URI."""


class ObjectChanged(StorageError):
    """An object is another than when its reading began, so that its bytes no longer go together."""


class ChecksumMismatch(StorageError):
    """The bytes that came do not have the checksum that the store tells of the object."""


class Fenced(StorageError):
    """A later start of the job has claimed the checkpoint location: this one must not write there any more."""


class ArchiveError(WorkError):
    """A model archive that must not be unpacked."""


class PackagingError(WorkError):
    """Source code that could not be made runnable."""


class ScoringError(WorkError):
    """A scoring container that did not become healthy or does not answer."""
