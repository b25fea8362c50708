"""Campaign files: their schema, how they are loaded, overridden and explained."""
