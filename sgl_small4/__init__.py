"""A plugin that makes stock SGLang serve Mistral Small 4."""
