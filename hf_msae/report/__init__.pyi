from .page import write_report as write_report
from .red_team import write_red_team_report as write_red_team_report
