"""What `hf-msae` can do, a module a command, each with a `main(argv)`."""
