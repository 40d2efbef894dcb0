import { ChevronRight } from 'lucide-react';
import { Collapsible as Radix } from 'radix-ui';
import type { ReactNode } from 'react';
import { cn } from './cn';

export function Collapsible({
  title,
  defaultOpen = false,
  className,
  children,
}: {
  title: ReactNode;
  defaultOpen?: boolean;
  className?: string | undefined;
  children: ReactNode;
}) {
  return (
    <Radix.Root defaultOpen={defaultOpen} className={className}>
      <Radix.Trigger className="group -ml-1 flex items-center gap-1 rounded-md py-1 pr-2 pl-1 text-sm text-fg-2 hover:bg-hover hover:text-fg pointer-coarse:min-h-11">
        <ChevronRight aria-hidden className="size-4 transition-transform group-data-[state=open]:rotate-90" />
        {title}
      </Radix.Trigger>
      <Radix.Content className={cn('pt-1')}>{children}</Radix.Content>
    </Radix.Root>
  );
}
