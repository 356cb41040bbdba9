"""Which family's answers a model gives; a plain one while `output.family` is being written."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from localrun.output.family import Family, family_of
else:
    try:
        from localrun.output.family import Family, family_of
    except ModuleNotFoundError:

        class Family:
            name = "plain"
            thinks = calls_tools = False
            markers = ()
            reasoning_start = reasoning_end = ""

            def variables(self, think):
                return {}

            def opens_reasoning(self, text):
                return False

            def parser(self, **_):
                return None

            def grammar(self, **_):
                return ""

        def family_of(**_):
            return Family()


__all__ = ["Family", "family_of"]
