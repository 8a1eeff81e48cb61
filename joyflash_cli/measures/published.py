"""Table 1 of the paper, as it is printed there."""

PAPER = "JoyAvatar-Flash, Table 1"

COLUMNS = ("sync_c", "sync_d", "idc", "q_score", "q_face", "fps_dit")
"""Keys of its columns; its FPS is that of the transformer alone on one GPU."""

HEADS = ("Sync-C", "Sync-D", "IDC", "Q_score", "Q_face", "FPS (DiT)")

ROWS: dict[str, tuple[str, ...]] = {
    "StableAvatar 1.3B": ("2.47", "10.97", "0.72", "0.91", "0.53", "< 1"),
    "EchoMimicV3 1.3B": ("2.49", "10.78", "0.72", "0.90", "0.51", "< 1"),
    "OmniAvatar 1.3B": ("3.85", "9.54", "0.72", "0.88", "0.50", "< 1"),
    "WanS2V 14B": ("4.05", "9.38", "0.67", "0.88", "0.47", "< 1"),
    "JoyAvatar teacher 14B": ("5.56", "8.19", "0.78", "0.91", "0.63", "< 1"),
    "Omnihuman-1": ("5.62", "8.80", "0.82", "0.90", "0.65", "–"),
    "Heygen": ("4.86", "9.09", "0.79", "0.92", "0.66", "–"),
    "LiveAvatar 14B": ("3.89", "9.45", "0.78", "0.85", "0.52", "4.3"),
    "JoyAvatar-Flash 1.3B": ("5.25", "8.30", "0.72", "0.84", "0.53", "16.2"),
}
"""System to its row, as text: a table that was published is not computed with."""

NOTE = (
    "Published figures are those of the paper's own 100 avatars, which are not public. Rows "
    "measured here on other videos stand beside them, not in their ranking."
)
