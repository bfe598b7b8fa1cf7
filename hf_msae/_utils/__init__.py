"""What every room may use: files that appear whole, JSON, hashes, redaction, pictures, the command line's parser."""
