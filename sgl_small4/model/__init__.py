"""The model definition: what Mistral Small 4 computes, on SGLang's layers. Knows no CPU file."""
