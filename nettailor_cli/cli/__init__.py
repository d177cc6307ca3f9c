"""What a person types: parse, call the engine, show the result."""
