import type { ComponentProps, ReactNode } from 'react';
import { cn } from './cn';

/** A framed surface. */
export function Card({ className, ...props }: ComponentProps<'div'>) {
  return <div className={cn('rounded-lg border border-line bg-surface shadow-sm', className)} {...props} />;
}

/** A framed list of rows with lines between them. */
export function List({ className, ...props }: ComponentProps<'ul'>) {
  return (
    <ul
      className={cn(
        'divide-y divide-line overflow-hidden rounded-lg border border-line bg-surface shadow-sm',
        className,
      )}
      {...props}
    />
  );
}

/** One row; what is in it decides the columns. A link inside with `after:inset-0` makes all of it a target. */
export function ListRow({ className, ...props }: ComponentProps<'li'>) {
  return (
    <li
      className={cn(
        'relative flex min-h-12 items-center gap-3 px-4 py-2.5 hover:bg-hover has-[a:focus-visible]:bg-hover',
        className,
      )}
      {...props}
    />
  );
}

export function Table({
  head,
  children,
  label,
  className,
}: {
  head: readonly ReactNode[];
  /** `tr`s of `Cell`s. */
  children: ReactNode;
  label: string;
  className?: string | undefined;
}) {
  return (
    <div className={cn('overflow-x-auto rounded-lg border border-line bg-surface shadow-sm', className)}>
      <table aria-label={label} className="w-full border-collapse text-sm">
        <thead>
          <tr className="border-b border-line text-left text-xs text-fg-3">
            {head.map((cell, index) => (
              <th key={index} scope="col" className="h-9 px-4 font-medium whitespace-nowrap">
                {cell}
              </th>
            ))}
          </tr>
        </thead>
        <tbody className="divide-y divide-line">{children}</tbody>
      </table>
    </div>
  );
}

export function Cell({ className, ...props }: ComponentProps<'td'>) {
  return <td className={cn('h-11 px-4', className)} {...props} />;
}
