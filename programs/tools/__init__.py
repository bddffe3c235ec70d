"""Functions that the model may call."""

from programs.tools.calculator import calculator
from programs.tools.functions import Tool
from programs.tools.program import ToolsResult, use_tools

__all__ = ["Tool", "ToolsResult", "calculator", "use_tools"]
