"""Many edits compared: sweeps over settings, evaluations over pairs of clip and reference."""
