// Curves of runs on one axis of steps. Pure, tested with node.

/** `[steps, ...values]` of several runs for one metric: all steps in order, null where a run has no point. */
export function align(runs, metric, most = 2000) {
  const steps = [
    ...new Set(runs.flatMap((points) => points.filter(({values}) => metric in values).map(({step}) => step))),
  ].sort((a, b) => a - b);
  const every = Math.ceil(steps.length / most) || 1;
  const kept = steps.filter((_, at) => at % every === 0 || at === steps.length - 1);
  const lines = runs.map((points) => {
    const known = new Map(points.map(({step, values}) => [step, values[metric]]));
    return kept.map((step) => known.get(step) ?? null);
  });
  return [kept, ...lines];
}

/** The metrics that any of the runs has, loss first. */
export function metricsOf(runs) {
  const names = new Set(runs.flatMap((points) => points.flatMap(({values}) => Object.keys(values))));
  return [...names].sort((a, b) => (b === 'loss') - (a === 'loss') || a.localeCompare(b));
}

/** First, last and best value of a metric, and the step of the best (least). */
export function result(points, metric) {
  const known = points.filter(({values}) => Number.isFinite(values[metric]));
  if (!known.length) return null;
  const best = known.reduce((least, point) => (point.values[metric] < least.values[metric] ? point : least));
  return {
    first: known[0].values[metric],
    last: known.at(-1).values[metric],
    best: best.values[metric],
    bestStep: best.step,
    step: known.at(-1).step,
  };
}
