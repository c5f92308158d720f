"""Where runs are computed. A backend takes jobs and hands back outcomes; results go straight to the store."""
