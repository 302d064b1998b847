#include "examples/storm/plot.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "dynlib/base/strings.h"

namespace dynlib::storm {
namespace {

constexpr double kLeft = 70, kWidth = 640, kHeight = 190, kTop = 60, kGap = 70, kLegend = 18;

std::string Number(double value) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.1f", value);
  return text;
}

// A mark of an axis: 20000 as 20,000.
std::string Mark(double value) {
  std::string digits = std::to_string(static_cast<long long>(value));
  for (int at = static_cast<int>(digits.size()) - 3; at > 0; at -= 3)
    digits.insert(static_cast<size_t>(at), ",");
  return digits;
}

std::string Text(double x, double y, const std::string& anchor, const std::string& text) {
  return Cat("<text x=\"", Number(x), "\" y=\"", Number(y), "\" text-anchor=\"", anchor, "\">",
             text, "</text>\n");
}

std::string Rule(double x1, double y1, double x2, double y2, const std::string& style) {
  return Cat("<line x1=\"", Number(x1), "\" y1=\"", Number(y1), "\" x2=\"", Number(x2), "\" y2=\"",
             Number(y2), "\" ", style, "/>\n");
}

class PanelDrawing {
 public:
  PanelDrawing(const Panel& panel, double top) : panel_(panel), top_(top) {}

  std::string Axes(double seconds,
                   const std::vector<std::pair<double, std::string>>& events) const {
    std::string svg = Text(kLeft, top_ - 10, "start", panel_.title);
    for (const double mark : panel_.marks) {
      svg += Rule(kLeft, Y(mark), kLeft + kWidth, Y(mark), "stroke=\"#ddd\"");
      svg += Text(kLeft - 6, Y(mark) + 4, "end", Mark(mark));
    }
    for (double second = 0; second <= seconds; second += 5) {
      const double x = kLeft + kWidth * second / seconds;
      svg += Text(x, top_ + kHeight + 16, "middle", Cat(Mark(second), " s"));
    }
    for (const auto& [at, name] : events) {
      const double x = kLeft + kWidth * at / seconds;
      svg += Rule(x, top_, x, top_ + kHeight, "stroke=\"#888\" stroke-dasharray=\"4 3\"");
      svg += Text(x - 4, top_ + kHeight - 6, "end", name);
    }
    return svg;
  }

  std::string Lines() const {
    std::string svg;
    for (const Line& line : panel_.lines) {
      svg +=
          Cat("<polyline fill=\"none\" stroke-width=\"1.8\" stroke=\"", line.color, "\" points=\"");
      const double step = kWidth / static_cast<double>(line.values.size());
      for (size_t i = 0; i < line.values.size(); ++i)
        svg += Cat(Number(kLeft + step * (static_cast<double>(i) + 0.5)), ",",
                   Number(Y(line.values[i])), " ");
      svg += "\"/>\n";
    }
    return svg;
  }

 private:
  double Y(double value) const {
    const double low = panel_.marks.front(), high = panel_.marks.back();
    const double at = std::clamp(value, low, high);
    const double share =
        panel_.logarithmic ? std::log(at / low) / std::log(high / low) : (at - low) / (high - low);
    return top_ + kHeight * (1 - share);
  }

  const Panel& panel_;
  const double top_;
};

}  // namespace

std::string ToSvg(const std::string& title, double seconds,
                  const std::vector<std::pair<double, std::string>>& events,
                  const std::vector<Panel>& panels) {
  const double height = kTop + static_cast<double>(panels.size()) * (kHeight + kGap) +
                        static_cast<double>(panels.front().lines.size()) * kLegend;
  std::string svg =
      Cat("<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"", Number(kLeft + kWidth + 30),
          "\" height=\"", Number(height), "\" font-family=\"sans-serif\" font-size=\"12\">\n",
          "<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n");
  svg += Text(kLeft, 22, "start", title);
  double top = kTop;
  for (const Panel& panel : panels) {
    const PanelDrawing drawing(panel, top);
    svg += drawing.Axes(seconds, events) + drawing.Lines();
    top += kHeight + kGap;
  }
  double y = top - kGap / 2 + 10;
  for (const Line& line : panels.front().lines) {
    svg += Rule(kLeft, y - 4, kLeft + 24, y - 4,
                Cat("stroke-width=\"3\" stroke=\"", line.color, "\""));
    svg += Text(kLeft + 30, y, "start", line.name);
    y += kLegend;
  }
  return svg + "</svg>\n";
}

}  // namespace dynlib::storm
