#include "examples/capacity/svg_plot.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "dynlib/base/strings.h"

namespace dynlib::examples {
namespace {

constexpr double kWidth = 440;  // of a panel's axes
constexpr double kHeight = 170;
constexpr double kLeft = 60;
constexpr double kTop = 56;
constexpr double kColumn = kWidth + 80;
constexpr double kRow = kHeight + 60;
constexpr size_t kPointsMax = 300;

std::string Number(double value) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.1f", value);
  return text;
}

std::string Text(double x, double y, const std::string& text, const std::string& attributes) {
  return Cat("<text x='", Number(x), "' y='", Number(y), "' ", attributes, ">", text, "</text>\n");
}

std::string Segment(double x1, double y1, double x2, double y2, const std::string& attributes) {
  return Cat("<line x1='", Number(x1), "' y1='", Number(y1), "' x2='", Number(x2), "' y2='",
             Number(y2), "' ", attributes, "/>\n");
}

// A round number at or above: 1, 2 or 5 times a power of ten.
double RoundUp(double value) {
  const double power = std::pow(10, std::floor(std::log10(std::max(value, 1e-9))));
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (value <= factor * power) return factor * power;
  }
  return 10 * power;
}

// Neighbouring values as their mean, so that the file stays small.
std::vector<double> Thin(const std::vector<double>& values) {
  const size_t every = (values.size() + kPointsMax - 1) / kPointsMax;
  if (every <= 1) return values;
  std::vector<double> means;
  for (size_t i = 0; i + every <= values.size(); i += every) {
    double sum = 0;
    for (size_t k = 0; k < every; ++k) sum += values[i + k];
    means.push_back(sum / static_cast<double>(every));
  }
  return means;
}

struct Axes {
  double x = 0;  // of the origin
  double y = 0;
  double x_max = 1;
  double y_max = 1;

  double X(double value) const { return x + value / x_max * kWidth; }
  double Y(double value) const { return y - std::min(value / y_max, 1.0) * kHeight; }
};

std::string Grid(const Axes& axes, const std::string& x_name) {
  std::string svg;
  const double step = RoundUp(axes.y_max / 5);
  for (double value = 0; value <= axes.y_max * 1.001; value += step) {
    svg += Segment(axes.x, axes.Y(value), axes.x + kWidth, axes.Y(value), "stroke='#ddd'");
    svg += Text(axes.x - 6, axes.Y(value) + 4, Cat(std::llround(value)), "text-anchor='end'");
  }
  const double x_step = RoundUp(axes.x_max / 6);
  for (double value = 0; value <= axes.x_max * 1.001; value += x_step) {
    svg += Text(axes.X(value), axes.y + 15, Cat(std::llround(value)), "text-anchor='middle'");
  }
  return svg + Text(axes.x + kWidth, axes.y + 28, x_name, "text-anchor='end'");
}

std::string Curve(const Axes& axes, const PlotLine& line) {
  const std::vector<double> values = Thin(line.values);
  std::string points;
  for (size_t i = 0; i < values.size(); ++i) {
    const double x =
        axes.x_max * (static_cast<double>(i) + 0.5) / static_cast<double>(values.size());
    points += Cat(Number(axes.X(x)), ",", Number(axes.Y(values[i])), " ");
  }
  return Cat("<polyline fill='none' stroke='", line.color, "' stroke-width='1.4' points='", points,
             "'/>\n");
}

}  // namespace

std::string SvgPlot(const std::string& title, const std::string& x_name, const std::string& y_name,
                    const std::vector<PlotPanel>& panels) {
  Axes axes;
  double y_max = 0;
  for (const PlotPanel& panel : panels) {
    y_max = std::max(y_max, panel.level);
    for (const PlotLine& line : panel.lines) {
      axes.x_max = std::max(axes.x_max, static_cast<double>(line.values.size()));
      for (const double value : Thin(line.values)) y_max = std::max(y_max, value);
    }
  }
  axes.y_max = y_max * 1.05;
  const double height = kTop + kRow * static_cast<double>((panels.size() + 1) / 2);
  std::string svg = Cat("<svg xmlns='http://www.w3.org/2000/svg' width='", Number(2 * kColumn),
                        "' height='", Number(height),
                        "' font-family='sans-serif' font-size='11'>\n"
                        "<rect width='100%' height='100%' fill='white'/>\n");
  svg += Text(kLeft, 18, title, "font-size='14' font-weight='bold'");
  svg += Text(kLeft, 36, y_name, "fill='#555'");
  for (size_t i = 0; i < panels.size(); ++i) {
    const PlotPanel& panel = panels[i];
    axes.x = kLeft + kColumn * static_cast<double>(i % 2);
    axes.y = kTop + kHeight + 10 + kRow * static_cast<double>(i / 2);
    svg += Text(axes.x, axes.y - kHeight - 4, panel.title, "font-weight='bold'");
    svg += Grid(axes, x_name);
    if (panel.level > 0) {
      svg += Segment(axes.x, axes.Y(panel.level), axes.x + kWidth, axes.Y(panel.level),
                     "stroke='black' stroke-dasharray='5 4'");
      svg +=
          Text(axes.x + kWidth - 2, axes.Y(panel.level) - 3, panel.level_name, "text-anchor='end'");
    }
    double x = axes.x + kWidth;
    for (size_t k = panel.lines.size(); k-- > 0;) {
      svg += Text(x, axes.y - kHeight - 4, panel.lines[k].name,
                  Cat("text-anchor='end' fill='", panel.lines[k].color, "'"));
      x -= 8 + 6.2 * static_cast<double>(panel.lines[k].name.size());
    }
    for (const PlotLine& line : panel.lines) svg += Curve(axes, line);
  }
  return svg + "</svg>\n";
}

}  // namespace dynlib::examples
