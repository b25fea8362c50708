"""What a finished campaign looks like: tables, pictures, files."""
