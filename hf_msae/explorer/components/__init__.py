"""What several tabs share: inputs, bars, charts and waiting."""
