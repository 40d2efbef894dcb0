import { cn } from './cn';

/** A grey place where something will be. Shown only when waiting takes longer than 200 ms. */
export function Skeleton({ className }: { className?: string | undefined }) {
  return (
    <div aria-hidden className="animate-late">
      <div className={cn('h-4 animate-skeleton rounded-md bg-active', className)} />
    </div>
  );
}

export function SkeletonRows({ rows = 4, label = 'Loading' }: { rows?: number; label?: string }) {
  return (
    <div role="status" className="flex flex-col gap-3 py-2">
      <span className="sr-only">{label}</span>
      {Array.from({ length: rows }, (_, index) => (
        <div key={index} className="flex items-center gap-3 px-3">
          <Skeleton className="size-3 rounded-full" />
          <div className="flex-1">
            <Skeleton className={index % 2 === 0 ? 'w-2/5' : 'w-1/3'} />
          </div>
          <Skeleton className="w-20" />
        </div>
      ))}
    </div>
  );
}
