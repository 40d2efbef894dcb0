import { formatBytes } from '@/app/bytes';
import { Badge } from '@/ui/badge';
import { cn } from '@/ui/cn';
import type { DiskUse } from '@/api/disk';
import { fullness, partsOf, type DiskSizes } from './words';

/** How much of a quota is used; what that is of, is said below it. */
export function DiskMeter({ use }: { use: DiskUse }) {
  const parts = partsOf(use);
  const { level, percent, sentence } = fullness(use);
  // Over the quota the bar is full, and the parts share it.
  const whole = Math.max(use.totalBytes, use.quotaBytes ?? 0, 1);
  return (
    <div>
      <div className="flex flex-wrap items-baseline gap-x-2.5 gap-y-1">
        <p className="text-xl font-semibold tabular-nums">{sentence}</p>
        <FullnessBadge use={use} />
      </div>
      <div
        {...(percent === undefined
          ? { role: 'img', 'aria-label': `Disk use: ${sentence}` }
          : {
              role: 'meter',
              'aria-label': 'Disk use',
              'aria-valuemin': 0,
              'aria-valuemax': 100,
              'aria-valuenow': Math.min(percent, 100),
              'aria-valuetext': `${sentence}, ${percent} %`,
            })}
        className={cn(
          'mt-3 flex h-3 w-full gap-px overflow-hidden rounded-full bg-active',
          level === 'over' && 'outline-2 outline-offset-1 outline-bad',
        )}
      >
        {parts.map(({ id, bytes, fill }) => (
          <span key={id} className={cn('h-full', fill)} style={{ width: `${(bytes / whole) * 100}%` }} />
        ))}
      </div>
      <dl className="mt-3 flex flex-wrap gap-x-6 gap-y-1.5 text-sm">
        {parts.map(({ id, label, bytes, fill }) => (
          <div key={id} className="flex items-center gap-2 whitespace-nowrap">
            <span aria-hidden className={cn('size-2.5 shrink-0 rounded-xs', fill)} />
            <dt className="text-fg-2">{label}</dt>
            <dd className="font-medium tabular-nums">{formatBytes(bytes)}</dd>
          </div>
        ))}
      </dl>
    </div>
  );
}

/** Says in words what a full bar says. */
export function FullnessBadge({ use }: { use: DiskSizes }) {
  const { level, percent } = fullness(use);
  if (percent === undefined) return null;
  if (level === 'over') return <Badge tone="bad">over its quota</Badge>;
  if (level === 'nearly') return <Badge tone="warn">nearly full, {percent} %</Badge>;
  return <span className="text-sm text-fg-3 tabular-nums">{percent} %</span>;
}
