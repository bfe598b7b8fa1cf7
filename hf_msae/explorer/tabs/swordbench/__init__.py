"""The page "SwordBench" of the tab "Steer": how well methods of steering work."""
