"""Unpacks what the bundle has compressed just before the import that needs it; costs nothing until then."""


def _install() -> None:
    import sys

    class UnpackingFinder:
        """Finds nothing itself: what it lets other finders find can be imported afterwards."""

        waiting = {"numpy", "playwright._impl._driver", "pyarrow"}  # noqa: RUF012  a class is all there is of it

        @classmethod
        def find_spec(cls, name: str, path: object = None, target: object = None) -> None:
            if name in cls.waiting:
                cls.waiting.discard(name)
                from orchestrator_adapters.pyinstaller._unpacking import unpack

                unpack(name, sys._MEIPASS)  # type: ignore[attr-defined]

    sys.meta_path.insert(0, UnpackingFinder)


_install()
del _install
